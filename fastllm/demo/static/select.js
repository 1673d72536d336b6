/* A native select: its list closes when it is left, and a phone shows its own. The `js_on_load` of a gr.HTML;
   `choices`, pairs of value and text, stands before this file. */

const field = element.querySelector("select");
for (const [value, text] of choices) field.append(make("option", "", text, { value }));
const update = () => { field.value = props.value; };
field.addEventListener("change", () => {
  props.value = field.value;
  trigger("input");
});
watch("value", update);
update();
