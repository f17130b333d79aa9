"""Everything that knows slackhq/nebula: certificates, configuration, bundles, processes."""
