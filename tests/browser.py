"""What the tests ask of a browser."""

from __future__ import annotations

import json
import re
from typing import Any

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

    def contrasts(self) -> list[tuple[float, str, str]]:
        """Contrast of each visible text with its ground, lowest first (WCAG 2)."""
        return [tuple(one) for one in self.run(CONTRAST)]
