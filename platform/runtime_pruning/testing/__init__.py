"""Contract suites that plugin authors inherit: subclass one in a test file and name the plugin."""
