// Package experiments is what the experiments share: what a result says of its run, and the directory that a report of one
// is written to. An experiment is a package of its own below this one.
package experiments

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"pqlab/internal/cycles"
	"pqlab/report"
)

// About is what every result says of the run that it is from.
type About struct {
	Experiment string         `json:"experiment"`
	Version    string         `json:"version"` // of pqlab
	Command    []string       `json:"command"` // repeats the run
	Started    time.Time      `json:"started"`
	Seconds    float64        `json:"seconds"`
	Kernel     string         `json:"kernel"`
	Machine    report.Machine `json:"machine"`
	Dataplane  string         `json:"dataplane"` // what carried ESP
	Shaper     string         `json:"shaper"`    // what gave links their rate, delay and losses
	Seed       uint64         `json:"seed"`
	Schedule   Schedule       `json:"schedule"`
	Warnings   []string       `json:"warnings"` // what the figures must not be taken for
}

// Begin is About a run that begins now.
func Begin(name, version string, command []string, seed uint64) About {
	a := About{
		Experiment: name, Version: version, Command: command, Started: time.Now(), Kernel: report.Kernel(), Machine: report.ThisMachine(),
		Seed: seed, Schedule: Schedule{Where: []string{}}, Warnings: []string{},
	}
	if cycles.Ask().Emulated() {
		a.Warnings = append(a.Warnings, "QEMU TCG plays this processor: no time and no rate here is one of pqlab or of a device; what counts is how those of one run compare")
	}
	return a
}

// Where says in a line on what the run was made.
func (a About) Where() string {
	return fmt.Sprintf("%s, %d × %s, %s; dataplane %s, shaper %s; seed %d; %.0f s from %s on", a.Kernel, a.Machine.CPUs, a.Machine.Model, "pqlab "+a.Version,
		a.Dataplane, a.Shaper, a.Seed, a.Seconds, a.Started.Format("2006-01-02 15:04 MST"))
}

// The files of a report, beside its pictures.
const (
	JSONFile = "result.json"
	HTMLFile = "index.html"
)

// Picture is drawn into a file of its own.
type Picture struct {
	File    string // "times.svg"
	Drawing interface{ WriteSVG(io.Writer) error }
}

// CheckDir tells before a run whether WriteDir would accept dir: it can be written to, and is missing, empty, or holds an
// earlier report of an experiment. Else the error is that of report.CheckDir.
func CheckDir(dir string) error {
	err := report.CheckDir(dir)
	if errors.Is(err, report.ErrForeign) && ours(filepath.Join(dir, JSONFile)) {
		return nil
	}
	return err
}

// ours says whether a file is the result of an experiment.
func ours(path string) bool {
	b, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	var head struct {
		Experiment string `json:"experiment"`
	}
	return json.Unmarshal(b, &head) == nil && head.Experiment != ""
}

// WriteDir writes result as JSON, the page and the pictures into dir, which it makes if need be. All of it was made before the
// first file is written.
func WriteDir(dir string, result any, page report.Document, pictures ...Picture) error {
	if err := CheckDir(dir); err != nil {
		return err
	}
	type file struct {
		name string
		text bytes.Buffer
	}
	files := []*file{{name: JSONFile}, {name: HTMLFile}}
	if err := WriteJSON(&files[0].text, result); err != nil {
		return err
	}
	if err := page.WriteHTML(&files[1].text); err != nil {
		return err
	}
	for _, p := range pictures {
		f := &file{name: p.File}
		if err := p.Drawing.WriteSVG(&f.text); err != nil {
			return err
		}
		files = append(files, f)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	for _, f := range files {
		if err := replace(filepath.Join(dir, f.name), f.text.Bytes()); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	return nil
}

// replace writes a file in one step.
func replace(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// WriteJSON writes a result, indented.
func WriteJSON(w io.Writer, result any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(result); err != nil {
		return fmt.Errorf("result as JSON: %w", err)
	}
	return nil
}
