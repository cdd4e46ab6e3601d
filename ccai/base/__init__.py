"""What every other package uses: errors, files, records, parameters, versions, the terminal."""
