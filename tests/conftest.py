"""Fixtures that tests of several packages share."""

from hypothesis import settings

pytest_plugins = ["tests.helpers.s3", "tests.helpers.ray_token"]

# tests do not time: the machine may be busy with something else
settings.register_profile("polytower", deadline=None)
settings.load_profile("polytower")
