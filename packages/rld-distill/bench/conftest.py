pytest_plugins = ["papercommons.testing.fixtures"]
