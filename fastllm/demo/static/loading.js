/* What keeps the page from racing, in a sentence; nothing where nothing does. */

const line = element.querySelector("p");
const show = () => {
  line.textContent = props.value || "";
  line.hidden = !props.value;
};
watch("value", show);
show();
