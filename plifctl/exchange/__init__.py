"""Files that networks travel in: ``formats`` lists what is written, ``lookup`` finds a network, ``model`` reads it.

| module | format |
|---|---|
| arrays | ``.pt`` of torch and ``.npz`` of numpy |
| folder | model.safetensors, config.json and README.md, as on the Hugging Face hub |
| graphs | what the next two have in common |
| nir | ``.nir`` |
| onnx | ``.onnx`` |
| state_dicts | state dicts of SpikingJelly and other programs, read |
| spikingjelly | state dicts for SpikingJelly, written |
"""
