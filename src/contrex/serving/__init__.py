"""The explorer's page with its classifiers behind it: photos are dropped and changed in the browser, and answered."""
