"""From a study file to the models it trains and the questions it asks of them."""
