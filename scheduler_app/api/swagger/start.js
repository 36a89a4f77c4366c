// Every call can fail in six to eight ways that all look the same: they are folded behind one button.
const FoldedErrors = ({ React }) => ({
  wrapComponents: {
    responses: (Responses) => (props) => {
      const [open, setOpen] = React.useState(false);
      const isError = (_, status) => status >= "400";
      const errors = props.responses.filter(isError).keySeq().join(", ");
      const shown = open ? props.responses : props.responses.filterNot(isError);
      const label = `${open ? "Hide" : "Show"} the errors: ${errors}`;
      return React.createElement(
        "div",
        null,
        React.createElement(Responses, { ...props, responses: shown }),
        errors && React.createElement("button", { className: "btn fold-errors", onClick: () => setOpen(!open) }, label),
      );
    },
  },
});

SwaggerUIBundle({
  url: "../openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  persistAuthorization: false, // a key in the browser's storage would outlive the page
  plugins: [FoldedErrors],
});
