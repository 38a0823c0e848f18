"""What a GPU needs beside arrays: steps as CUDA graphs, the precision of products."""
