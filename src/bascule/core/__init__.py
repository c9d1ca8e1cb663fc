"""What every other room stands on: names, images, balls, random streams, fingerprints. Imports nothing above it."""
