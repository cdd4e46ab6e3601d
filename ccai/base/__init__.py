"""What every other package stands on: errors, files, records, params, versions, the terminal."""
