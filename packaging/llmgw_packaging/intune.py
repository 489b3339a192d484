"""An `.msi` in the container in which Intune takes a Win32 app."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmgw_mdm import intunewin

if TYPE_CHECKING:
    from llmgw_packaging.installation import Product


def wrapped(product: Product, content: bytes) -> tuple[str, bytes]:
    """Name and content of the `.intunewin`. Intune detects the app by the product code that stands in it."""
    about = {
        "MsiProductCode": product.product_code,
        "MsiProductVersion": product.version,
        "MsiPackageCode": product.package_code,
        "MsiUpgradeCode": product.upgrade_code,
        "MsiExecutionContext": "System",
        "MsiRequiresLogon": "false",
        "MsiRequiresReboot": "false",
        "MsiIsMachineInstall": "true",
        "MsiIsUserInstall": "false",
        "MsiIncludesServices": "false",
        "MsiIncludesODBCDataSource": "false",
        "MsiContainsSystemRegistryKeys": "false",
        "MsiContainsSystemFolders": "false",
        "MsiPublisher": product.publisher,
    }
    files = {product.file_name: content}
    name = product.file_name.removesuffix(".msi") + ".intunewin"
    return name, intunewin.package(product.name, product.file_name, files, about)
