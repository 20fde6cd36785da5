"""The command line, `worldmodels-fast`: `main` and a file per command."""
