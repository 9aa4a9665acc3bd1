"""The sections of the config, a file each: `config.Config` has them all."""
