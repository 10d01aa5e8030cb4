"""A result as one page: charts by matplotlib, HTML by Jinja2, no script and nothing from the network."""
