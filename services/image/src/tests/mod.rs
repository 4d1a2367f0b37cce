//! The service through its router: real database, real files, no network.

mod bad_input;
mod clients;
mod data;
mod harness;
mod images;
mod imports;
mod lists;
mod members;
mod metadefs;
mod tasks;

pub(crate) use harness::Cloud;

/// The suite once more on PostgreSQL, each test in a database of its own.
#[test]
fn on_postgres() {
    if !haneul_testkit::postgres::installed() {
        eprintln!("skipped: PostgreSQL is not installed (package postgresql)");
        return;
    }
    harness::use_postgres();
    images::an_image_from_birth_to_death();
    images::who_sees_and_who_changes();
    images::tags_one_by_one();
    images::an_owner_change_moves_the_memberships();
    images::every_change_is_in_the_log_and_nothing_else();
    lists::pages_meet_without_gap_or_overlap();
    lists::filters();
    lists::everybody_lists_what_is_theirs();
    lists::filters_are_not_sql();
    members::an_offer_taken_and_withdrawn();
    members::members_do_not_learn_of_each_other();
    metadefs::a_namespace_from_birth_to_death();
    metadefs::who_sees_and_who_changes_definitions();
    metadefs::definitions_live_in_their_namespace();
    metadefs::tags_replace_each_other_unless_they_are_to_append();
    metadefs::namespaces_page_without_gap_or_overlap();
    metadefs::what_is_in_a_namespace_goes_along_to_its_new_owner();
    metadefs::the_catalogue_is_made_once();
    tasks::a_task_ends_and_says_what_would_work();
    tasks::tasks_are_administrators();
    tasks::a_start_after_a_crash_ends_tasks();
    tasks::an_expired_task_is_gone();
    bad_input::refused_and_nothing_changed();
    bad_input::definitions_and_tasks_are_refused_and_nothing_changed();
    data::what_goes_in_comes_out();
    data::formats_are_checked_and_pinned();
    data::an_image_deleted_while_it_comes_in_is_gone();
    data::a_start_after_a_crash_undoes_what_was_half_done();
    imports::what_is_staged_is_imported_into_stores();
    imports::an_upload_chooses_its_store();
    imports::imports_are_refused_and_nothing_changed();
    imports::what_does_not_pass_leaves_nothing();
    imports::a_store_that_fails();
    imports::an_import_goes_on_after_a_restart();
    imports::an_image_deleted_while_it_is_imported_is_gone();
    imports::half_a_stage_leaves_nothing();
    imports::web_download_goes_where_it_is_allowed_to();
    imports::glance_download_takes_bytes_and_what_describes_them();
    imports::imports_are_converted();
    imports::the_cache_is_administrators_and_serves();
}
