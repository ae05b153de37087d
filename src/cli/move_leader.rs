//! `move-leader`: another member leads.

use clap::Args;
use client::NodeId;
use serde_json::json;

use super::failure::Failure;
use super::member::outcome;
use super::output::Output;
use super::roster::Roster;
use super::session::{Format, Global};

/// Flags of `move-leader`.
#[derive(Clone, Debug, Args)]
pub struct MoveLeaderArguments {
    /// Id or name of the member that shall lead; the most advanced other one if absent
    #[arg(value_name = "ID|NAME")]
    pub member: Option<String>,
}

/// Moves leadership.
///
/// # Errors
/// The cluster, or standard output.
pub fn run(global: &Global, arguments: &MoveLeaderArguments) -> Result<(), Failure> {
    let mut roster = Roster::at_leader(global)?;
    let before = roster.members.leader;
    let target = match &arguments.member {
        Some(text) => roster.find(text)?.id,
        None => NodeId::default(),
    };
    let leader = roster.client.move_leader(target).map_err(outcome)?;
    let mut output = Output::new(global.write_out, &roster.client);
    match global.write_out {
        Format::Simple if leader == before => {
            output.text(&format!("Leadership stays with {}\n", roster.called(leader)))
        }
        // No leader was known a moment ago.
        Format::Simple if before == NodeId::default() => {
            output.text(&format!("{} leads\n", roster.called(leader)))
        }
        Format::Simple => output.text(&format!(
            "Leadership transferred from {} to {}\n",
            roster.called(before),
            roster.called(leader)
        )),
        Format::Json => {
            let (before, leader) = (before.get(), leader.get());
            output.members(json!({ "previous_leader": before, "leader": leader }))
        }
    }
}
