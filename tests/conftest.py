"""What all tests share: fixtures live in tests/fixtures, one file per thing that is stood up."""

pytest_plugins = [
    "tests.fixtures.redis",
    "tests.fixtures.databases",
    "tests.fixtures.hasty",
    "tests.fixtures.logs",
    "tests.fixtures.programs",
    "tests.fixtures.reply_feeds",
    "tests.fixtures.service",
    "tests.fixtures.miniprogram",
    "tests.fixtures.nginx",
    "tests.fixtures.speech",
    "tests.fixtures.vendor",
    "tests.fixtures.wechat",
    "tests.fixtures.streams",  # last: it imports others, which pytest has to load first
]
