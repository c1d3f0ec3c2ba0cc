//! What rows of former schemas said in other ways.

use std::collections::BTreeMap;

use lab::{Cell, SOFTWARE_VULKAN, Spoiling};

use super::Record;
use crate::driver::is_software;
use crate::registry;

/// Until schema 3, sentences stood where codes stand now.
const SENTENCES: u32 = 3;

/// Whether what stands under this name is read here, and not by its column.
pub fn is_read_apart(name: &str, schema: u32) -> bool {
    name == "spoilt_by" && schema <= SENTENCES
}

/// A column that former schemas had, or that meant something else in them: name, first schema, meaning.
pub fn column(name: &str, schema: u32) -> Option<(&'static str, u32, &'static str)> {
    match name {
        "tuning" => Some((
            "tuning",
            3,
            "What of the manifest's tuning the technique heeded, in words; columns of their own since schema 4.",
        )),
        "spoilt_by" if schema <= SENTENCES => Some((
            "spoilt_by",
            2,
            "What may have spoilt its numbers, in sentences; codes since schema 4.",
        )),
        _ => None,
    }
}

/// Fills in what a row of a former schema says in another way. `devices` says what each device of its machine is.
pub fn bring_up_to_date(
    record: &mut Record,
    given: &BTreeMap<&str, &str>,
    devices: &BTreeMap<String, String>,
) -> Result<(), String> {
    record.experiment = registry::current_name(&record.experiment).to_owned();
    if record.schema > SENTENCES {
        return Ok(());
    }
    record.driver = devices.get(&record.device).map(|what| driver(what));
    for (name, value) in tuning(given.get("tuning").copied().unwrap_or_default()) {
        let value = Cell::read(value)?;
        match name {
            "staging_bytes" => record.staging_bytes = value,
            "threads" => record.threads = value,
            "queue_depth" => record.queue_depth = value,
            "resident_layers" => record.resident_layers = value,
            other => return Err(format!("column tuning: `{other}` is not known")),
        }
    }
    record.spoilt_by = Spoiling::of(&record.measures, record.waits_for_disk());
    let told = given.get("spoilt_by").copied().unwrap_or_default();
    let told = told.split("; ").filter(|sentence| !sentence.is_empty());
    for sentence in told {
        // Faults are weighed anew, by their number: one of them was a sentence, too.
        if let Some(spoiling) = spoiling(sentence)?
            && !record.spoilt_by.contains(&spoiling)
        {
            record.spoilt_by.push(spoiling);
        }
    }
    Ok(())
}

/// What a device is, in a row of today: a driver that runs on the CPU is called so.
fn driver(what: &str) -> String {
    match is_software(what) && !what.starts_with(SOFTWARE_VULKAN) {
        true => format!("{SOFTWARE_VULKAN}{what}"),
        false => what.to_owned(),
    }
}

/// `staging_bytes=16777216 threads=2`
fn tuning(words: &str) -> impl Iterator<Item = (&str, &str)> {
    words
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
}

fn spoiling(sentence: &str) -> Result<Option<Spoiling>, String> {
    let known = [
        ("major faults with a warm cache", None),
        ("the hypervisor took", Some(Spoiling::Stolen)),
        ("the CPU was throttled", Some(Spoiling::Throttled)),
        ("were in swap", Some(Spoiling::Swap)),
        ("used the GPU as well", Some(Spoiling::SharedDevice)),
        ("the sources differed", Some(Spoiling::Dirty)),
    ];
    let found = known.iter().find(|(words, _)| sentence.contains(words));
    found
        .map(|(_, spoiling)| *spoiling)
        .ok_or_else(|| format!("column spoilt_by: `{sentence}` is not known"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::read;
    use super::*;

    const FORMER: &str = "schema,run_id,manifest,manifest_sha256,commit,dirty,started_at,machine,device,backend,memory_model,\
        experiment,model,dtype,format,parameters,model_bytes,largest_tensor_bytes,cache,resident_fraction,host_cap_bytes,repeat,\
        status,reason,verified,load_seconds,first_forward_seconds,host_heap_peak_bytes,host_rss_peak_bytes,host_anon_peak_bytes,\
        host_file_peak_bytes,host_peak_phase,device_in_use_peak_bytes,device_reserved_peak_bytes,device_driver_peak_bytes,\
        device_peak_phase,bytes_read,host_contract_bytes,device_contract_bytes,contract_held,host_rss_baseline_bytes,\
        host_cgroup_peak_bytes,host_cap_mechanism,device_pool_used_peak_bytes,device_pool_reserved_peak_bytes,major_faults,\
        spoilt_by,checkpoint,tuning,framework,logits_error\n";

    fn row(experiment: &str, faults: u64, spoilt_by: &str, tuning: &str) -> String {
        format!(
            "3,id,m,0,abc,false,2026-01-01T00:00:00Z,box,vulkan,vulkan,discrete,{experiment},small,f32,safetensors,1,4,4,warm,1.0,,1,\
             ok,,true,2.0,,5,6,,,read,7,8,,upload,9,10,11,true,12,,,,,{faults},{spoilt_by},w,{tuning},burn 0.21.0,\n"
        )
    }

    fn read_row(row: String) -> Record {
        let devices = [("vulkan".to_owned(), "llvmpipe (LLVM 15), Mesa".to_owned())];
        let text = FORMER.to_owned() + &row;
        let mut rows = read(text.as_bytes(), Path::new("runs.csv"), &devices.into()).unwrap();
        assert!(rows.dropped.is_empty(), "{:?}", rows.dropped);
        rows.records.remove(0)
    }

    #[test]
    fn a_row_of_a_former_schema_is_read_with_todays_words() {
        let sentences = "1 major faults with a warm cache; the hypervisor took 7 % of the CPUs";
        let record = read_row(row(
            "streamed",
            1,
            sentences,
            "staging_bytes=1048576 threads=2",
        ));
        assert_eq!(record.schema, 3);
        assert_eq!(
            record.driver.as_deref(),
            Some("software Vulkan: llvmpipe (LLVM 15), Mesa")
        );
        assert_eq!(
            (record.staging_bytes, record.threads),
            (Some(1 << 20), Some(2))
        );
        assert_eq!(
            record.spoilt_by,
            [Spoiling::Stolen],
            "one fault in two seconds is none"
        );
        assert_eq!(record.measures.host_heap_peak_bytes, Some(5));
    }

    #[test]
    fn many_faults_spoil_a_former_run_too() {
        let record = read_row(row(
            "naive",
            2000,
            "2000 major faults with a warm cache",
            "",
        ));
        assert_eq!(record.spoilt_by, [Spoiling::Disk]);
    }
}
