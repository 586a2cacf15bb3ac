"""report.html: a report as one page, without scripts or anything from outside."""
