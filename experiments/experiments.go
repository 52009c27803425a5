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

// WriteDir writes result as JSON, the page and the pictures into dir, as report.WriteFiles does. All of it was made before the
// first file is written.
func WriteDir(dir string, result any, page report.Document, pictures ...Picture) error {
	if err := CheckDir(dir); err != nil {
		return err
	}
	var text bytes.Buffer
	if err := WriteJSON(&text, result); err != nil {
		return err
	}
	files := []report.File{{Name: JSONFile, Text: bytes.Clone(text.Bytes())}}
	text.Reset()
	if err := page.WriteHTML(&text); err != nil {
		return err
	}
	files = append(files, report.File{Name: HTMLFile, Text: bytes.Clone(text.Bytes())})
	for _, p := range pictures {
		text.Reset()
		if err := p.Drawing.WriteSVG(&text); err != nil {
			return err
		}
		files = append(files, report.File{Name: p.File, Text: bytes.Clone(text.Bytes())})
	}
	return report.WriteFiles(dir, files...)
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
