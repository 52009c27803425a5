package topology

import (
	"encoding/json"
	"strconv"

	"github.com/invopop/jsonschema"
)

// Schema returns the JSON Schema (draft 2020-12) of the YAML form, for editors. It knows keys, types, units and names of
// choices; what only Parse knows is whether the parts fit.
func Schema() ([]byte, error) {
	s := topologyForm().schema()
	s.Version = jsonschema.Version
	s.Title = "pqlab topology"
	return json.MarshalIndent(s, "", "  ")
}

func jsonNumber(n int) json.Number { return json.Number(strconv.Itoa(n)) }
