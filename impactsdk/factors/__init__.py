"""Grams, litres and money per kWh, with place, year, scope and source; one file per origin."""
