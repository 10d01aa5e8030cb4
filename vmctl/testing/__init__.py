"""Tests that begin with a clone of one prepared instance: the pytest plugin, which docs/pytest.md describes.

pytest loads `plugin` in every project of an environment in which vmctl is installed. So these modules import nothing
else of vmctl before a test asks for an instance.
"""

from vmctl.testing.fixtures import golden as golden
