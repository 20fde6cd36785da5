"""The stages of a run, one file each; each reads files of earlier stages and resumes."""
