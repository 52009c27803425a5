package links_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"pqlab/suites/links"
	"pqlab/suites/testlab"
)

func TestMain(m *testing.M) { testlab.Main(m) }

func TestLinks(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "pqlab")
	build := exec.Command("go", "build", "-o", binary, "pqlab/cmd/pqlab")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	testlab.Run(t, "links", func(e testlab.Env) {
		e.Binary = binary
		links.Specs(e)
	})
}
