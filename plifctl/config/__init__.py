"""What can be written in YAML: schema, registry, recipes."""
