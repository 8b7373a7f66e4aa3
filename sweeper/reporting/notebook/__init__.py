"""What notebooks show: the HTML of a plan, a run and a search, and the page of a report inside a cell."""
