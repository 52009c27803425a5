package topology_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"pqlab/topology"
)

// An independent validator accepts what Marshal writes and refuses what is wrong in form.
func TestSchema(t *testing.T) {
	t.Parallel()
	text, err := topology.Schema()
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("topology.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("topology.json")
	if err != nil {
		t.Fatal(err)
	}
	validate := func(data []byte) error {
		asJSON, err := yaml.YAMLToJSON(data)
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
		if err != nil {
			t.Fatal(err)
		}
		return schema.Validate(value)
	}
	accept := func(what string, top *topology.Topology) {
		data, err := top.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(data); err != nil {
			t.Errorf("%s: %v\n%s", what, err, data)
		}
	}
	for _, b := range topology.Builtins() {
		top, err := topology.Builtin(b.Name)
		if err != nil {
			t.Fatal(err)
		}
		accept(b.Name, top)
	}
	planned(200, func(_ int, top *topology.Topology, _ *topology.Plan) { accept("random", top) })
	for _, file := range []string{"unknown-keys", "missing-keys", "rates", "impairments", "shapes", "mtu", "names", "interfaces", "address-not-one", "wrong-types",
		"tunnel-choices", "flows", "traces", "queues", "outages", "wifi", "stations", "slots", "tolerance-of-nothing", "no-nodes", "empty-name"} {
		data, err := os.ReadFile("testdata/broken/" + file + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if validate(data) == nil {
			t.Errorf("%s.yaml: the schema accepts it", file)
		}
	}
	// What the schema cannot know it lets pass.
	for _, file := range []string{"unknown-node", "address-conflict", "bridge-loop", "tunnel-overlap"} {
		data, err := os.ReadFile("testdata/broken/" + file + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(data); err != nil {
			t.Errorf("%s.yaml: %v", file, err)
		}
	}
}
