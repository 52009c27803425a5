package hygiene

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"pqlab/suites/testlab"
)

func TestMain(m *testing.M) { testlab.Main(m) }

func Test(t *testing.T) {
	binary := build(t)
	testlab.Run(t, "hygiene", func(e testlab.Env) {
		e.Binary = binary
		Specs(e)
	})
}

// build makes pqlab where any user can run it.
func build(t *testing.T) string {
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	binary := filepath.Join(dir, "pqlab")
	build := exec.Command("go", "build", "-o", binary, "pqlab/cmd/pqlab")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}
