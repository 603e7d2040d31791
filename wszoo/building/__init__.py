"""From a source to plans: the request, a family's export, cells of the matrix, stripping, earlier versions."""
