// Texts that stand out less than 4.5 to 1 from what is behind them, as WCAG 2 counts for level AA.
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  // What shows where one colour lies on another, however either is written.
  const over = (below, colour) => {
    for (canvas.fillStyle of [below, colour]) canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue] = canvas.getImageData(0, 0, 1, 1).data;
    return `rgb(${red}, ${green}, ${blue})`;
  };
  const behind = (element) => (element ? over(behind(element.parentElement), getComputedStyle(element).backgroundColor) : "rgb(255, 255, 255)");
  const luminance = (colour) => {
    const [red, green, blue] = colour.match(/\d+/g).map((one) => one / 255).map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const faint = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement, words = texts.currentNode.data.trim();
    if (!words || !element.checkVisibility() || element.closest("svg, noscript, option, .skip")) continue;
    const back = behind(element), one = luminance(over(back, getComputedStyle(element).color)), other = luminance(back);
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) faint.push(`${words.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return faint;
})()
