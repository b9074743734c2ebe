"""What the tests ask of a browser."""

from __future__ import annotations

import base64
import io
import json
import re
from importlib.resources import files
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CONTRAST = """
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = numbers(getComputedStyle(e).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour.slice(0, 3);
  }
  return [255, 255, 255];
};
const found = [];
for (const element of document.querySelectorAll("main *")) {
  const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !element.checkVisibility()) continue;
  const style = getComputedStyle(element);
  const colour = element.namespaceURI.endsWith("svg") ? style.fill : style.color;
  const [one, two] = [luminance(numbers(colour).slice(0, 3)), luminance(ground(element))].sort((a, b) => b - a);
  found.push([(one + 0.05) / (two + 0.05), element.tagName, element.textContent.trim().slice(0, 40)]);
}
return found.sort((a, b) => a[0] - b[0]);
"""

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
"""axe-core, of which the package brings a copy; its own code, which drives another browser, is not used."""
VIOLATIONS = """
const done = arguments[0];
// All rules for WCAG 2.2, levels A and AA, and for good practice.
const runOnly = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
axe.run({ runOnly }).then(({ violations }) => done(violations));
"""


class Browser:
    """One window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def command(self, name: str, **arguments: Any) -> None:
        self.driver.execute_cdp_cmd(name, arguments)

    def reset(self) -> Browser:
        self.command("Emulation.setScriptExecutionDisabled", value=False)
        self.command("Emulation.setEmulatedMedia", media="", features=[])
        self.resize(1280)
        self.driver.get("about:blank")
        self.complaints()
        self.requests()
        return self

    def visit(self, address: str) -> Browser:
        self.driver.get(address)
        return self

    def resize(self, width: int) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.command("Emulation.setDeviceMetricsOverride", **size)

    def media(self, scheme: str, media: str = "screen") -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", media=media, features=features)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def seen(self, selector: str) -> list[str]:
        """Texts of the visible elements."""
        return [one.text for one in self.all(selector) if one.is_displayed()]

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def wait(self, selector: str) -> WebElement:
        """The element, once it is visible."""
        wait = WebDriverWait(self.driver, 30)
        return wait.until(lambda _: next((one for one in self.all(selector) if one.is_displayed()), False))

    def until(self, script: str) -> Any:
        return WebDriverWait(self.driver, 30).until(lambda _: self.run(script))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def open_run(self, name: str) -> None:
        """Follow the overview's link to a run and wait for its chart."""
        next(link for link in self.all(".row a") if link.text == name).click()
        self.wait("section.run svg.marks")

    def complaints(self) -> list[str]:
        """All that the console said since it was last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses of all requests other than for the page itself, since they were last asked for."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not re.match(r"(file:|about:|data:,$)", url)]

    def violations(self) -> list[tuple[str, str, list[str]]]:
        """What axe-core finds on the page as it is now: the rule, how bad it is, and the elements."""
        self.run(AXE)
        found = self.driver.execute_async_script(VIOLATIONS)
        return [(one["id"], one["impact"], [node["html"][:200] for node in one["nodes"]]) for one in found]

    def picture(self) -> Image.Image:
        """The whole page, at the width of the window."""
        width, height = self.run("return [innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        told = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        return Image.open(io.BytesIO(base64.b64decode(told["data"]))).convert("RGB")

    def printed(self) -> bytes:
        """The page as a PDF, on the paper that it asks for or A4."""
        asked = {"printBackground": True, "preferCSSPageSize": True, "paperWidth": 8.27, "paperHeight": 11.69}
        return base64.b64decode(self.driver.execute_cdp_cmd("Page.printToPDF", asked)["data"])

    def contrasts(self) -> list[tuple[float, str, str]]:
        """Contrast of each visible text with its ground, lowest first (WCAG 2)."""
        return [tuple(one) for one in self.run(CONTRAST)]
