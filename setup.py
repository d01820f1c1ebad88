"""All metadata is in pyproject.toml; this file is kept because tools expect it."""

from setuptools import setup

setup()
