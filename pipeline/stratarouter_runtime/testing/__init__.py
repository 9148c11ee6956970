"""Fakes and a provider simulator, shipped for the tests of this package and of its users."""
