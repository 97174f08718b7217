"""What all tests share: fixtures live in tests/fixtures, one file per thing that is stood up."""

import importlib.util

pytest_plugins = [
    plugin
    for plugin in ("tests.fixtures.databases", "tests.fixtures.vendor", "tests.fixtures.wechat")
    if importlib.util.find_spec(plugin)
]
