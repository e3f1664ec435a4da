"""Messages: what crosses between server and clients, as records, arrays, codecs and sums."""
