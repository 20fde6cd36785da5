"""The dream: M by itself, with a temperature."""
