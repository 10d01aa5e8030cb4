"""A result as one page: charts by matplotlib, HTML by Jinja2, without scripts and without the network."""
