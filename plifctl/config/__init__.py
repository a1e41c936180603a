"""Configuration in YAML: schemas, registry, recipes."""
