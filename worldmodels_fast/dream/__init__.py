"""The dream: M as the environment, at a temperature."""
