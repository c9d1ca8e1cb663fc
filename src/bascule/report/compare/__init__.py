"""Rows side by side: what is better, what cannot be told apart, in numbers and sentences."""
