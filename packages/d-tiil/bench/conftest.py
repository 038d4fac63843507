pytest_plugins = ["papercommons.testing.fixtures", "papercommons.testing.results"]


def pytest_addoption(parser):
    parser.addoption("--model", help="folder of a model of simple scenes; without it, no IoU")
    parser.addoption("--pairs", type=int, default=6, help="pairs whose maps are compared by IoU")
