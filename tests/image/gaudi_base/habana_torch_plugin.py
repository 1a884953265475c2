"""Writes a package into this Python that is called as Gaudi's bridge for PyTorch is, and does nothing."""

import sysconfig
from pathlib import Path

VERSION = "1.24.1.0"

site = Path(sysconfig.get_path("purelib"))
bridge = site / "habana_frameworks" / "torch"
bridge.mkdir(parents=True)
(bridge / "__init__.py").write_text('raise ImportError("a stand-in for Gaudi\'s bridge: there is no card here")\n')
info = site / f"habana_torch_plugin-{VERSION}.dist-info"
info.mkdir()
(info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: habana-torch-plugin\nVersion: {VERSION}\n")
