"""What a run is given: minibatches of data, parameters, and checks of both and of the program at them."""
