"""What only a CUDA device can show. Where there is none, these tests are skipped."""
