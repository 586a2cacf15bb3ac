"""Which dtypes each layer gets: sensitivity on data, the stage of the flow, the search for --max-drop."""
