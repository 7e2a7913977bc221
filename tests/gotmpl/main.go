// Renders a Go template with the values that Ollama's chat handler gives it: JSON on standard input, text out.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/template"
)

type message struct {
	Role, Content, Thinking string
	ToolCalls               []any
}

type input struct {
	Template, System string
	Messages         []message
}

// withSystem puts the model's system prompt before a chat that brings none, as Ollama's routes do.
func withSystem(in input) []message {
	if in.System != "" && (len(in.Messages) == 0 || in.Messages[0].Role != "system") {
		return append([]message{{Role: "system", Content: in.System}}, in.Messages...)
	}
	return in.Messages
}

// collate joins neighbours of one role and gathers the system messages, as Ollama's template package does.
func collate(messages []message) (string, []*message) {
	var system []string
	var collated []*message
	for i := range messages {
		m := messages[i]
		if m.Role == "system" {
			system = append(system, m.Content)
		}
		if last := len(collated) - 1; last >= 0 && collated[last].Role == m.Role && m.Role != "tool" {
			collated[last].Content += "\n\n" + m.Content
		} else {
			collated = append(collated, &m)
		}
	}
	return strings.Join(system, "\n\n"), collated
}

func main() {
	decoder := json.NewDecoder(os.Stdin)
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	for decoder.More() {
		var in input
		if err := decoder.Decode(&in); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		parsed, err := template.New("").Option("missingkey=zero").Parse(in.Template)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		system, messages := collate(withSystem(in))
		var text strings.Builder
		values := map[string]any{"System": system, "Messages": messages, "Response": "", "Tools": []any{}}
		if err := parsed.Execute(&text, values); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		encoder.Encode(text.String())
	}
}
