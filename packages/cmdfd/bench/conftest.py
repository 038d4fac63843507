pytest_plugins = ["papercommons.testing.fixtures", "papercommons.testing.results"]
